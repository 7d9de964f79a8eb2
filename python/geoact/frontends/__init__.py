"""One module per array library: from the user's arrays to a backend and back.

A front end may import its own library and ``geoact._core``; nothing imports a front end but ``geoact.activations``.
"""
