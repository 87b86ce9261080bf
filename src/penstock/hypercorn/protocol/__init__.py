"""HTTP/1.1, HTTP/2 and WebSockets: Hypercorn's, changed where they break the guarantee."""
