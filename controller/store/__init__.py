"""What is kept on disk: model folders, and the state database with its ledger and its API keys."""
