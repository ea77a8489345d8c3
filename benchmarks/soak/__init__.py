"""A mixed-load run against a real server: does it answer, and does memory stay flat?

``python -m benchmarks.soak`` drives everything at once (``workloads``, ``changing``,
``hostile``), restarts the server meanwhile (``process``), watches it (``prober``,
``samples``) and ends with one line for each criterion (``verdict``).
"""
