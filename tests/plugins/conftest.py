"""Modules find this repository's module_utils under ansible.module_utils, as Ansible shows them to a module."""

from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "plugins/module_utils"))
