"""What benchmarks share: installation, clients, peers, reports."""
