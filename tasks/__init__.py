"""One module a stage: thin Prefect tasks that read an input, call the library, write an output."""
