"""Real conversations replayed through the engine: what each layout of the prompt costs and what its answers are worth."""
