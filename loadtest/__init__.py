"""The load tester: time to first token, turn by turn, of any OpenAI-compatible server. It never imports `server`."""
