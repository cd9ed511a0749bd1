"""One worker family is one lease: one provider, one model, one OpenAI chat-completions endpoint.

Public library calls: :func:`worker.session.open_session`, :func:`worker.session.query` and
:func:`worker.session.stream`. Nothing in here imports ``supervisor``.
"""
