"""Admission: who may ask now, how much, and what is said to the one who may not, before any work is done.

`Gate` goes around the whole app and gives every request a place; `Admission` is asked once it is known who calls. What
is over a caller's own limit is refused with 429, what is over the platform's with 503, both with Retry-After.
"""

from api_gateway.admission.admission import Admission, asks_to_wait
from api_gateway.admission.gate import Gate
from api_gateway.admission.limits import AdmissionLimits
from api_gateway.admission.rates import SHARE_SECONDS

__all__ = ["SHARE_SECONDS", "Admission", "AdmissionLimits", "Gate", "asks_to_wait"]
