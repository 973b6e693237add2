"""What a client sees: answers, fairness, webhooks, the contract."""
