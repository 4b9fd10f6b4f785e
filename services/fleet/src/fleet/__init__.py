"""A whole fleet on one machine: every service in one process, or each as processes of its own."""
