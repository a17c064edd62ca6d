"""The annotation application: HTTP and WebSocket over a project, for the page that `segany serve` opens.

It needs the extra `segany[serve]`. `segany.server.running.serve` starts it; `segany.Client` speaks to it.
"""
