"""All SQL of request-manager: `accepting`, then `requests` for what is stored, and `reconciling`."""
