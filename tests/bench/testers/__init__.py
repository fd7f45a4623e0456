"""Load testers side by side on one simulated target: what each says beside what the target knows."""
