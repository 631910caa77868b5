"""The fleet over NVFlare: the only package that imports it (extra [fleet]).

Two thin relays run inside NVFlare's job processes, without torch: `controller` on the server and
`executor` on a vehicle. Everything that learns, aggregates or decides is outside, behind a socket.
"""
