"""Which distribution should a policy that is fitted by likelihood have?"""
