"""One module for each stage: thin Prefect tasks that read, call the library, and write."""
