"""What makes work survive a crash: outbox, inbox, leases, and the tables they keep in each service's schema."""
