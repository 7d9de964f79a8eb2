"""Cases generated from the registry, inputs, and oracles; imported by the tests, tests nothing itself."""
