"""A cluster from outside: jobs, what its nodes say of themselves, and faults on purpose."""
