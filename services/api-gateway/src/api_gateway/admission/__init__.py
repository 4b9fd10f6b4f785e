"""Admission control: refuses requests over a limit before any work is done for them.

`concurrency` bounds the requests in progress in this process, and runs before the caller is known. `rates` bounds the
requests of a caller, of a tenant and of all gateways in a time window, and runs as soon as the caller is known. A
request over the caller's or the tenant's limit is refused with 429, a request over the platform's with 503, and both
responses carry Retry-After. `limits` has the numbers and makes these refusals.
"""
