"""binfmt_misc and nothing else: mounting, reading, writing and sealing an instance."""
