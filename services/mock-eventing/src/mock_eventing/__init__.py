"""A broker in memory that keeps Knative's data-plane contract."""
