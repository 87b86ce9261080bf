"""HTTP/1.1, HTTP/2 and WebSockets: Hypercorn's, and what the guarantee needs beside them."""
