"""What `lookalike doctor` looks at: each check is a function that finds things; none changes anything"""
