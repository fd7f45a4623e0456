"""ContextPilot on the passages of given conversations: what a prefix cache saves there, beside plain layouts.

`make_conversations.py` retrieves; `conversation.py` is what is replayed and `request.py` what an engine would
get of it; `layout.py` are the plain layouts; `pilot.py` runs in ContextPilot's environment, `contestant.py` starts
it there; `firstword.py` is Firstword's own part, without an engine; `account.py` counts tokens, `report.py` shows them.
"""
