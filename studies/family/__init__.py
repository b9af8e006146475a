"""Every algorithm on one continuous and one discrete log: does it learn?"""
