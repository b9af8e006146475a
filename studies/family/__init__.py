"""Every algorithm on one continuous and one discrete dataset: does it learn?"""
