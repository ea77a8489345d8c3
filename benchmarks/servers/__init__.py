"""The peers: the same network behind other servers, with the same ``POST /v1/completions``.

Each takes ``--weights FILE --port N``, accepts ``{"prompt", "max_tokens", "stream"}``
and streams ``data: {"choices": [{"text": …}]}`` events up to ``data: [DONE]``.
"""
