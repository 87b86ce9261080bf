"""Look at an event stream from outside, as a browser meets it: what is wrong, and what to set.

`observing` asks, and holds the stream; `examination` reads its bytes; `findings` says what follows.
Only `asking` and `observing` need Trio and httpx2; observations and findings are plain data.
"""
