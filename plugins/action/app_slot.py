"""Move a service between its slots: says who asks, for the line that a release leaves which fails.

- name: back | Have the other slot serve
  app_slot:
    root: /srv/textreport/web
    state: returned
"""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import action_loader


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        # Who asks is the one who holds the lock
        lock = action_loader.get("app_lock", class_only=True)
        arguments = {**self._task.args, "who": lock.this_run()["who"]}
        result: dict[str, t.Any] = self._execute_module("app_slot", module_args=arguments, task_vars=task_vars)
        return result
