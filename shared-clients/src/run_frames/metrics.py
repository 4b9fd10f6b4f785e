"""The metrics of runs' streams."""

from shared_clients.metrics import counter, gauge

FRAMES_APPENDED = counter("flotilla_frames_appended_total", "Frames appended to the streams of runs.")
STREAMS_OPEN = gauge("flotilla_streams_open", "Clients reading a stream at this moment.")
