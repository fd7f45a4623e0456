"""The gateway benchmark: what a gateway costs per token and adds to the first one, side by side with others.

`plan.py` is what a measuring client is told and answers; `client.py` measures, `answer.py` and `figures.py` read
what it saw; `target.py`, `naive.py` and `contestants.py` are what is measured; `gateway.py` runs it all.
"""
