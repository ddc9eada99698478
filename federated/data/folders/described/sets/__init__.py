"""Descriptions of public sets that come with the project: YAML files beside this one."""
