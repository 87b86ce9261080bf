"""The doctor: test an event stream from outside, as a browser sees it, and say what to configure.

`probe` requests the stream and holds it, `body` examines its bytes, and both fill an `Observation`;
`report` turns that into findings. Only `probe` needs Trio and httpx2; the rest is plain data.
"""
