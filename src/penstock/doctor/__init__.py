"""Look at an event stream from outside, as a browser meets it: what is wrong, and what to set.

`observing` asks, and holds the stream; `examination` reads its bytes; `findings` says what follows.
Only `asking` and `observing` need Trio and httpx: what is seen, and what is said of it, are tables.
"""
