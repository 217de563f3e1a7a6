"""Named ways to break a promise, and the tests that must notice: `python -m tests.mutations`.

Each is one change of the product's text, made in a copy of the tree; the tests named with it pass
without it and must fail with it. `python -m tests.mutations NAME ...` tries only these.
"""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 2
LONGEST = 180.0
"""Seconds after which a mutation's tests are ended: a promise that hangs is broken too."""

LONGEST_UNBROKEN = 1200.0
"""Seconds that all the tests together may take without any mutation."""

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")

LAUNCHING = "tests/application/test_faults_launching.py::"
ANSWERS = "tests/application/test_faults_launch_answers.py::"
FLEETS = "tests/application/test_fleets.py::"
INTERRUPTIONS = "tests/application/test_interruptions.py::"
CRASHES = "tests/acceptance/test_crash_points.py::"
RETURNING = "tests/application/test_faults_returning.py::"
WORKERS = "tests/application/test_faults_workers.py::"
POLICIES = "tests/application/test_policies_"
CONTRACTS = "tests/contracts/test_"
TOGETHER = "tests/contracts/test_together.py::test_"
MACHINES = "tests/application/test_several_machines.py::"
ALERTING = "tests/application/test_alerting.py::"
MONITORING = "tests/application/test_monitoring.py::"


@dataclass(frozen=True)
class Mutation:
    """`row` is the fault row it belongs to, "" for a rule beside the rows; `tests` are node ids,
    those of one way to launch where that tells enough."""

    name: str
    row: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


SENT = 'launched = turn.cloud.launch(row["api"], row["payload"], row["token"], body)'
REBUILT = """key = Template.key(row["provider"], row["template_id"])
                revision = turn.work.templates(row["provider"])[row["template_id"]]
                content = turn.work.template_content(key, revision)
                tags = row["payload"]["TagSpecifications"][0]["Tags"]
                planned = turn.cloud.plan(
                    content,
                    pools_of(content, price_type(content))[:1],
                    row["machine_count"],
                    {tag["Key"]: tag["Value"] for tag in tags},
                )
                launched = turn.cloud.launch(row["api"], planned.payload, row["token"], body)"""
"""The call of an open intent, and one that is made from the template as it is by now."""

MUTATIONS = (
    # -- launching --------------------------------------------------------------------------------
    Mutation(
        "own buckets ignored",
        "1",
        "infrastructure/aws/throttle.py",
        "        return self._tokens >= min(tokens, self._size)",
        "        return True",
        (LAUNCHING + "test_fault_01_throttle_burst",),
    ),
    Mutation(
        "throttle taken for a rejection",
        "1",
        "application/provisioning.py",
        'if failed.kind in ("throttled", "unreachable", "ambiguous"):',
        'if failed.kind in ("unreachable", "ambiguous"):',
        (LAUNCHING + "test_fault_01_throttle_burst",),
    ),
    Mutation(
        "pool of a throttled override avoided",
        "2",
        "application/avoiding.py",
        'if shortage.kind in ("shortage", *GIVES_NOTHING):',
        'if shortage.kind in ("shortage", "throttled", *GIVES_NOTHING):',
        (ANSWERS + "test_fault_02_throttle_inside_a_fleet",),
    ),
    Mutation(
        "quota beside a throttle asked again and again",
        "3",
        "application/provisioning.py",
        'if "quota" in kinds:',
        'if kinds == {"quota"}:',
        (ANSWERS + "test_fault_03_throttle_and_quota_in_one_fleet",),
    ),
    Mutation(
        "random token",
        "4",
        "infrastructure/aws/ec2.py",
        '"ClientToken": token}',
        '"ClientToken": __import__("uuid").uuid4().hex}',
        (LAUNCHING + "test_fault_04_lost_launch_response",),
    ),
    Mutation(
        "epoch raised on a timeout",
        "5",
        "application/provisioning.py",
        'if failed.kind in ("throttled", "unreachable", "ambiguous"):',
        'if failed.kind in ("throttled", "unreachable"):',
        (LAUNCHING + "test_fault_05_launch_finishes_after_read_timeout",),
    ),
    Mutation(
        "intent after the call",
        "6",
        "application/provisioning.py",
        "        bodies = None\n        if planned.user_data is not None and ",
        "        assert batch.intent is not None\n"
        "        turn.cloud.launch(api, payload, batch.intent.token, planned.user_data)\n"
        "        bodies = None\n        if planned.user_data is not None and ",
        (LAUNCHING + "test_fault_06_killed_between_launch_and_event",),
    ),
    Mutation(
        "open intents left alone at the start",
        "7",
        "application/provisioning.py",
        "                self._pursue(row)",
        '                if row["batch_id"] in self._attempts:\n'
        "                    self._pursue(row)",
        (LAUNCHING + "test_fault_07_killed_between_intent_and_call",),
    ),
    Mutation(
        "payload rebuilt instead of stored",
        "8",
        "application/provisioning.py",
        SENT,
        REBUILT,
        (LAUNCHING + "test_fault_08_template_changed_before_restart",),
    ),
    Mutation(
        "invisible taken for lost",
        "9",
        "application/reconciliation.py",
        "VISIBLE_AFTER = 300.0",
        "VISIBLE_AFTER = 0.0",
        (LAUNCHING + "test_fault_09_new_ids_not_visible",),
    ),
    Mutation(
        "empty pool asked again and again",
        "10",
        "application/provisioning.py",
        "pools = [pool for pool in pools_of(content, market) if self._avoided.admits(pool)]",
        "pools = pools_of(content, market)[:1]",
        (LAUNCHING + "test_fault_10_capacity_one_of_n",),
    ),
    Mutation(
        "breaker never opens",
        "16",
        "infrastructure/aws/throttle.py",
        "        if self._is_open or len(self._failures) >= FAILURES:",
        "        if False:",
        (LAUNCHING + "test_fault_16_region_down_for_ten_minutes",),
    ),
    Mutation(
        "breaker drops intents",
        "16",
        "application/provisioning.py",
        "        elif turn.now()[2] >= attempts.due and turn.cloud.may_launch(\n"
        '            row["api"], row["machine_count"]\n'
        "        ):",
        '        elif not turn.cloud.may_launch(row["api"], row["machine_count"]):\n'
        '            self._reject(row, "BreakerOpen", "", True)\n'
        "        elif turn.now()[2] >= attempts.due:",
        (LAUNCHING + "test_fault_16_region_down_for_ten_minutes",),
    ),
    Mutation(
        "batch forgotten when its outcome cannot be stored",
        "19",
        "application/provisioning.py",
        '            if row["state"] == "open":\n                self._pursue(row)',
        '            known = self._attempts.get(row["batch_id"], _Attempts(False))\n'
        '            if row["state"] == "open" and not known.ambiguous:\n'
        "                self._pursue(row)",
        (LAUNCHING + "test_fault_19_store_fails_after_launch",),
    ),
    Mutation(
        "unrecorded launch taken for none",
        "19",
        "application/provisioning.py",
        "                attempts.ambiguous = True\n",
        "",
        (LAUNCHING + "test_fault_19_rejection_after_unrecorded_launch",),
    ),
    Mutation(
        "ambiguous rejection recorded as definite",
        "22",
        "application/provisioning.py",
        'definite = not attempts.ambiguous and failed.kind != "mismatch"',
        'definite = failed.kind != "mismatch"',
        (LAUNCHING + "test_fault_22_rejection_after_ambiguous_attempt",),
    ),
    Mutation(
        "settled after one sweep",
        "22",
        "application/reconciliation.py",
        '            if first == began and not row["settlement"]:\n                continue\n',
        "            first = (0.0, began[1], 0.0)\n",
        (LAUNCHING + "test_fault_22_rejection_after_ambiguous_attempt",),
    ),
    Mutation(
        "token sent again though too old",
        "24",
        "application/provisioning.py",
        'if turn.age(row) > turn.aws["token_safe_age"]:',
        "if False:",
        (LAUNCHING + "test_fault_24_token_forgotten_over_a_weekend",),
    ),
    Mutation(
        "new token after a mismatch",
        "25",
        "application/provisioning.py",
        'definite = not attempts.ambiguous and failed.kind != "mismatch"',
        "definite = not attempts.ambiguous",
        (
            LAUNCHING + "test_fault_25_idempotent_parameter_mismatch",
            LAUNCHING + "test_fault_25_demand_is_open_again_after_settling",
        ),
    ),
    Mutation(
        "launch template asked for under another name each time",
        "29",
        "application/provisioning.py",
        "        batch_id = self._reserve(request)",
        "        batch_id = new_id(BATCH, turn.random(16))",
        (ANSWERS + "test_fault_29_launch_template_in_doubt[lost_response-fleet-maintain]",),
    ),
    Mutation(
        "launch template made again for ever",
        "30",
        "application/provisioning.py",
        "            useless |= _what(row) in self._forgotten\n",
        "",
        (
            ANSWERS + "test_fault_30_deleted_as_soon_as_it_is_made",
            ANSWERS + "test_fault_30_gone_inside_the_errors_of_a_fleet",
        ),
    ),
    Mutation(
        "launch template missed once and for all",
        "30",
        "application/provisioning.py",
        "            self._forgotten.discard(_what(row))\n",
        "            pass\n",
        (ANSWERS + "test_fault_30_deleted_between_two_launches[fleet-instant]",),
    ),
    Mutation(
        "giving up forgotten when the reason is known",
        "30",
        "domain/machine_request.py",
        " or (gives_up and not self.has_given_up)",
        "",
        (ANSWERS + "test_fault_30_deleted_as_soon_as_it_is_made[fleet-instant]",),
    ),
    Mutation(
        "missed launch template left at AWS",
        "30",
        "application/projections/launches.py",
        '"LaunchTemplateMissed": _template_is("missed")',
        '"LaunchTemplateMissed": _template_is("deleted")',
        (ANSWERS + "test_fault_30_gone_inside_the_errors_of_a_fleet",),
    ),
    Mutation(
        "somebody else's group taken for ours",
        "31",
        "infrastructure/aws/groups.py",
        "if all(has.get(key) == wanted[key] for key in (tags.DEPLOYMENT, tags.BATCH)):",
        "if wanted is not has:",
        (ANSWERS + "test_fault_31_group_name_is_somebody_elses",),
    ),
    Mutation(
        "somebody else's launch template taken for ours",
        "31",
        "infrastructure/aws/launch_templates.py",
        'if tags.of(found.get("Tags")).get(tags.DEPLOYMENT) == wanted:',
        "if wanted:",
        (ANSWERS + "test_fault_31_launch_template_name_is_somebody_elses[fleet-instant]",),
    ),
    Mutation(
        "image of an open intent asked for anew",
        "32",
        "application/provisioning.py",
        SENT,
        REBUILT,
        (ANSWERS + "test_fault_32_image_parameter_changed_before_the_resend",),
    ),
    Mutation(
        "latest revision for everybody",
        "33",
        "application/choosing.py",
        'content = turn.work.template_content(key, request["revision"])',
        'offered = turn.work.templates(request["provider"])\n'
        '                revision = offered[request["template_id"]]\n'
        "                content = turn.work.template_content(key, revision)",
        (ANSWERS + "test_fault_33_template_edited_while_a_request_is_open",),
    ),
    Mutation(
        "refused by all overrides and asked again",
        "34",
        "application/provisioning.py",
        'useless = not some and kinds == {"refused"}',
        "useless = False",
        (ANSWERS + "test_fault_34_every_override_refused",),
    ),
    Mutation(
        "capacity in a 500 taken for an accident",
        "35",
        "infrastructure/aws/errors.py",
        "    if code in SHORTAGE:",
        "    if code in SHORTAGE and status < 500:",
        (ANSWERS + "test_fault_35_capacity_in_a_500[RunInstances]",),
    ),
    Mutation(
        "weights ignored in the deal",
        "36",
        "domain/launch_batch.py",
        "owed[request_id] -= counts",
        "owed[request_id] -= 1",
        (ANSWERS + "test_fault_36_weights_of_two_requests",),
    ),
    Mutation(
        "spot fleet fills on until the deadline",
        "37",
        "application/fleets.py",
        "return market_for(turn, content, request) == SPOT",
        "return True",
        (ANSWERS + "test_fault_37_the_rest_on_demand",),
    ),
    Mutation(
        "spot until the deadline",
        "37",
        "application/demand.py",
        "return ON_DEMAND if turn.age(request) >= deadline - lead else SPOT",
        "return SPOT",
        (ANSWERS + "test_fault_37_the_rest_on_demand[0-RunInstances]",),
    ),
    Mutation(
        "quota of one family taken for all",
        "38",
        "application/provisioning.py",
        "useless |= self._avoided.leaves_none(content)",
        "useless = True",
        (ANSWERS + "test_fault_38_quota_of_one_family",),
    ),
    Mutation(
        "shortage taken for hopeless",
        "38",
        "application/avoiding.py",
        "            if shortage.kind in GIVES_NOTHING:",
        '            if shortage.kind in ("shortage", *GIVES_NOTHING):',
        (ANSWERS + "test_fault_38_quota_beside_a_shortage",),
    ),
    Mutation(
        "not permitted and asked again",
        "39",
        "application/provisioning.py",
        "gives_up = self._gives_up(row, self._content(row), [reason], False)",
        "gives_up = False",
        (ANSWERS + "test_fault_39_launch_not_permitted[RunInstances]",),
    ),
    Mutation(
        "open deletion of a fleet forgotten",
        "40",
        "application/fleets.py",
        '            elif row["state"] == "deleting":\n                doomed.append((row, ""))\n',
        '            elif row["state"] == "deleting":\n                pass\n',
        (CRASHES + "test_fault_40_killed_at[aws.DeleteFleets.before]",),
    ),
    # -- returning and looking --------------------------------------------------------------------
    Mutation(
        "no bisection",
        "11",
        "infrastructure/aws/instances.py",
        "                elif len(part) == 1 or failed.code not in SPOILS_ALL:",
        "                elif True:",
        (RETURNING + "test_fault_11_terminate_with_one_unknown_id",),
    ),
    Mutation(
        "refused taken for terminated",
        "12",
        "infrastructure/aws/instances.py",
        "                    refused += [[machine_id, failed.code] for machine_id in part]",
        "                    accepted += part",
        (RETURNING + "test_fault_12_terminate_protected_in_mixed_zones",),
    ),
    Mutation(
        "lost terminate taken for done",
        "13",
        "infrastructure/aws/instances.py",
        "                    retry += part",
        "                    accepted += part",
        (RETURNING + "test_fault_13_lost_terminate_response",),
    ),
    Mutation(
        "open terminations forgotten at the start",
        "13",
        "application/returning.py",
        'due = self._backoff.admits(row["termination_id"])',
        "due = False",
        (RETURNING + "test_fault_13_killed_after_terminate",),
    ),
    Mutation(
        "NotFound taken for terminated",
        "14",
        "application/returning.py",
        '            turn.journal.warn("termination refused", machine_id=machine_id, code=code)\n',
        '            turn.journal.warn("termination refused", machine_id=machine_id, code=code)\n'
        "            machine = turn.ledger.get(Machine, machine_id)\n"
        "            assert machine is not None\n"
        "            machine.terminate(code)\n"
        "            turn.save(machine, correlation_id=machine_id)\n",
        (RETURNING + "test_fault_14_terminate_not_found_while_running",),
    ),
    Mutation(
        "dealt to a cancelled claim",
        "15",
        "application/demand.py",
        "        [request_id, units - max(0, overshot(requests[request_id]))]\n"
        "        for request_id, units in claims\n"
        "        if request_id in requests\n",
        "        [request_id, units] for request_id, units in claims\n",
        (RETURNING + "test_fault_15_return_racing_a_launch",),
    ),
    Mutation(
        "sweep trusted when a page failed",
        "17",
        "infrastructure/aws/instances.py",
        "        while True:\n"
        "            answer = self._describe(parameters)\n"
        "            found +=",
        "        while True:\n"
        "            try:\n"
        "                answer = self._describe(parameters)\n"
        "            except CallFailed:\n"
        "                return found\n"
        "            found +=",
        (RETURNING + "test_fault_17_second_page_of_a_sweep_fails",),
    ),
    Mutation(
        "one sweep is enough for ever",
        "18",
        "application/reconciliation.py",
        '        return bool(since >= self._turn.aws["sweep_interval"])',
        "        return False",
        (RETURNING + "test_fault_18_taken_away_without_notice",),
    ),
    Mutation(
        "lost after one sweep",
        "18",
        "infrastructure/event_store/notebook.py",
        "return [machine_id for machine_id in machine_ids if machine_id in before]",
        "return list(machine_ids)",
        (RETURNING + "test_fault_18_forgotten_by_ec2",),
    ),
    # -- fleets and interruptions -----------------------------------------------------------------
    Mutation(
        "group lowered while a member is pending",
        "50",
        "application/fleets.py",
        'return bool(row["kept_pending"] or unrecorded)',
        "return False",
        (
            FLEETS + "test_fault_50_partial_return_while_others_are_pending",
            LAUNCHING + "test_fault_19_rejection_after_unrecorded_launch[group]",
        ),
    ),
    Mutation(
        "fleet target not lowered before the termination",
        "51",
        "application/fleets.py",
        '            self.unlowered.add(row["batch_id"])',
        "            pass",
        (FLEETS + "test_fault_51_refill_racing_a_return",),
    ),
    Mutation(
        "another target at AWS left alone",
        "52",
        "application/fleets.py",
        'and fleet.target != row["target"]',
        "and fleet.target < 0",
        (FLEETS + "test_fault_52_late_stale_target",),
    ),
    Mutation(
        "lost target taken for set",
        "53",
        "application/fleets.py",
        "self._refuse_returns(row, failed.code)\n            return False\n",
        "self._refuse_returns(row, failed.code)\n",
        (FLEETS + "test_fault_53_answer_of_the_target_call_lost",),
    ),
    Mutation(
        "return waits for ever for a target that AWS refuses",
        "",
        "application/fleets.py",
        "                self._refuse_returns(row, failed.code)\n",
        "                pass\n",
        (FLEETS + "test_a_refused_target_is_told",),
    ),
    Mutation(
        "call without a token before the old one ended",
        "54",
        "application/fleets.py",
        "return self._turn.outlived_others() and not self._turn.paused()",
        "return not self._turn.paused()",
        (FLEETS + "test_fault_54_no_target_before_the_old_call_has_ended",),
    ),
    Mutation(
        "doubtful fleet settled while it still launches",
        "55",
        "application/reconciliation.py",
        '[row for row in sweep.doubtful if row["batch_id"] not in launching]',
        "sweep.doubtful",
        (FLEETS + "test_fault_55_forgotten_before_it_was_full",),
    ),
    Mutation(
        "fleet fills on after the deadline",
        "56",
        "application/fleets.py",
        "        if not may_still_launch(turn, request):\n            return False\n",
        "",
        (FLEETS + "test_fault_56_partly_filled_at_the_deadline",),
    ),
    Mutation(
        "final while machines start",
        "57",
        "application/finishing.py",
        '            and not row["executing"]\n',
        "",
        (FLEETS + "test_fault_57_pending_at_the_deadline",),
    ),
    Mutation(
        "fleet fills on for a cancelled request",
        "58",
        "application/fleets.py",
        "if request_id in requests and self._is_wanted(row, requests[request_id]):",
        "if request_id not in requests or self._is_wanted(row, requests[request_id]):",
        (FLEETS + "test_fault_58_cancelled_while_filling",),
    ),
    Mutation(
        "group and pending machine wait for each other",
        "",
        "application/returning.py",
        'and (row["batch_id"] not in self._unlowered or machine_id in self.slow_to_start)',
        'and row["batch_id"] not in self._unlowered',
        (POLICIES + "launching.py::test_pending_too_long_beside_a_return",),
    ),
    Mutation(
        "machines of a fleet may start for ever",
        "59",
        "application/reconciliation.py",
        '            self._slow_to_start.add(row["machine_id"])',
        "            pass",
        (FLEETS + "test_fault_59_pending_too_long",),
    ),
    Mutation(
        "refused deletion taken for done",
        "60",
        "infrastructure/aws/groups.py",
        "                if failed.code in NOT_YET:\n"
        "                    continue\n"
        "                if not _is_gone(failed):\n",
        "                if not _is_gone(failed) and failed.code not in NOT_YET:\n",
        (FLEETS + "test_fault_60_delete_refused",),
    ),
    Mutation(
        "sweep without the fleets",
        "61",
        "application/reconciliation.py",
        "self.fleets = self._cloud.fleets(self._deployment, self._apis)",
        "pass",
        (FLEETS + "test_fault_61_fleets_cannot_be_listed",),
    ),
    Mutation(
        "lowered fleet loses its market",
        "62",
        "application/fleets.py",
        "return kept + wanted if share else kept",
        "return kept",
        (FLEETS + "test_fault_62_a_lowered_fleet_stays_on_demand",),
    ),
    Mutation(
        "notices not read",
        "63",
        "application/interrupting.py",
        'if not turn.aws["interruption_queue"] or',
        "if True or",
        (INTERRUPTIONS + "test_fault_63_told_with_the_seconds_that_are_left",),
    ),
    Mutation(
        "junk left in the queue",
        "64",
        "infrastructure/aws/notices.py",
        "            if others and not keep_others:\n                self.settle(others)\n",
        "",
        (INTERRUPTIONS + "test_fault_64_duplicates_and_junk",),
    ),
    Mutation(
        "unreadable queue hidden",
        "65",
        "application/interrupting.py",
        '            turn.journal.warn("interruption queue not read", code=failed.code)',
        '            turn.journal.info("no notices", code=failed.code)',
        (INTERRUPTIONS + "test_fault_65_queue_in_trouble",),
    ),
    Mutation(
        "interruption seen but not recorded",
        "66",
        "application/reconciliation.py",
        'elif instance.interrupted and instance.state == "shutting-down":',
        "elif False:",
        (INTERRUPTIONS + "test_fault_66_seen_while_it_goes",),
    ),
    Mutation(
        "machine that AWS takes ended all the same",
        "67",
        "application/returning.py",
        'if row["interrupted"] != INTERRUPTION or self._turn.aws["spot_terminate_on_reclaim"]:',
        "if True:",
        (INTERRUPTIONS + "test_fault_67_terminate_on_reclaim",),
    ),
    Mutation(
        "ours by tag taken for a stranger",
        "26",
        "application/finishing.py",
        "if instance.deployment != turn.deployment:",
        "if True:",
        (WORKERS + "test_fault_26_restored_and_activated[RunInstances]",),
    ),
    Mutation(
        "machine that failed not wanted again",
        "68",
        "application/provisioning.py",
        'given: int = request["dealt"] - request["failed"] + request["claimed"]',
        'given: int = request["dealt"] + request["claimed"]',
        (INTERRUPTIONS + "test_fault_68_interrupted_before_its_request_is_final",),
    ),
    Mutation(
        "notice recorded each time",
        "69",
        "domain/machine.py",
        "if not self.is_gone and reason not in self.interruptions:",
        "if not self.is_gone:",
        (INTERRUPTIONS + "test_fault_69_killed_between_recording_and_deleting",),
    ),
    Mutation(
        "notice of a machine not yet recorded lost",
        "69",
        "application/interrupting.py",
        "if is_new and abs(",
        "if False and abs(",
        (INTERRUPTIONS + "test_fault_69_killed_before_its_launch_is_recorded",),
    ),
    Mutation(
        "recommendation taken for an interruption",
        "70",
        "application/returning.py",
        'if row["interrupted"] != INTERRUPTION or',
        'if not row["interrupted"] or',
        (INTERRUPTIONS + "test_fault_70_rebalance_alone",),
    ),
    # -- workers ----------------------------------------------------------------------------------
    Mutation(
        "lease taken while it is held",
        "20",
        "infrastructure/event_store/lease.py",
        "if not is_dead and holder_boot == boot_id and seconds < expires:",
        "if False:",
        (WORKERS + "test_fault_20_two_workers_started",),
    ),
    Mutation(
        "sightings ignored",
        "21",
        "application/sighting.py",
        "overdue = {thing for thing in now if now[thing] - since[thing] >= timeout}",
        "overdue: set[str] = set()",
        (WORKERS + "test_fault_21_answer_of_request_machines_lost",),
    ),
    Mutation(
        "fence off",
        "23",
        "infrastructure/event_store/sql.py",
        "        if row is None or row[0] != fence:",
        "        if False:",
        (WORKERS + "test_fault_23_outcome_of_a_lost_lease_is_refused",),
    ),
    Mutation(
        "group made late left to launch",
        "23",
        "application/fleets.py",
        "self._strays(self.late - rows.keys())",
        "self._strays(set())",
        (WORKERS + "test_fault_23_group_made_late[sqlite-True]",),
    ),
    Mutation(
        "late instances of a settled batch left alone",
        "23",
        "application/reconciliation.py",
        '            elif batch["state"] not in ("open", "doubtful"):',
        '            elif batch["state"] not in ("open", "doubtful", "settled"):',
        (WORKERS + "test_fault_23_paused_while_another_settles",),
    ),
    Mutation(
        "end of who lost its lease",
        "23",
        "interfaces/worker/loop.py",
        "            self._wait_anew()\n            return True",
        "            return False",
        (WORKERS + "test_fault_23_launched_late_with_nobody_there",),
    ),
    Mutation(
        "ages by the wall clock",
        "27",
        "application/instants.py",
        "    if earlier[1] == later[1]:",
        "    if False:",
        (WORKERS + "test_fault_27_wall_clock_steps",),
    ),
    Mutation(
        "recorded time goes back",
        "27",
        "infrastructure/event_store/commit.py",
        "    recorded_at = max(recorded_at, iso(instant[0]))",
        "    recorded_at = iso(instant[0])",
        (WORKERS + "test_fault_27_wall_clock_steps",),
    ),
    Mutation(
        "lease version ignored",
        "28",
        "infrastructure/event_store/lease.py",
        "if _order(version) < _order(self.program_version):",
        "if False:",
        (WORKERS + "test_fault_28_newer_release_takes_over",),
    ),
    Mutation(
        "any release drives another out",
        "28",
        "infrastructure/event_store/lease.py",
        "if _order(version) < _order(self.program_version):",
        "if True:",
        (WORKERS + "test_fault_28_older_release_waits",),
    ),
    # -- rules beside the rows --------------------------------------------------------------------
    Mutation(
        "instant fleet deleted with a machine in it",
        "",
        "application/fleets.py",
        '            and not row["alive"]\n'
        '            and row["batch_id"] not in self._inhabited\n',
        "",
        (LAUNCHING + "test_fault_04_lost_launch_response[fleet-instant]",),
    ),
    Mutation(
        "brake ignored",
        "",
        "application/turn.py",
        "return scope == EVERYTHING or (launching and scope == LAUNCHING)",
        "return False",
        ("tests/application/test_brakes.py::test_nothing_is_launched_while_paused",),
    ),
    Mutation(
        "cap ignored",
        "",
        "application/provisioning.py",
        "        if cap.room < room:\n",
        "        if False:\n",
        ("tests/application/test_limits.py::test_never_more_machines_than_the_cap",),
    ),
    Mutation(
        "pending judged without asking EC2",
        "",
        "application/returning.py",
        "machine_id in self.slow_to_start:",
        "turn.age(row) > pending_timeout:",
        (POLICIES + "launching.py::test_pending_is_judged_by_ec2",),
    ),
    Mutation(
        "pending for ever",
        "",
        "application/returning.py",
        "machine_id in self.slow_to_start:",
        "False:",
        (
            POLICIES + "launching.py::test_pending_too_long_is_replaced",
            POLICIES + "launching.py::test_pending_too_long_is_reported",
        ),
    ),
    Mutation(
        "deadline ignored",
        "",
        "application/demand.py",
        'not request["stopped"] and bool(turn.age(request) < request["fulfilment_deadline"])',
        'not request["stopped"]',
        (POLICIES + "launching.py::test_top_up_until_the_deadline",),
    ),
    Mutation(
        "quota waited for until the deadline",
        "",
        "application/provisioning.py",
        "useless |= self._avoided.leaves_none(content)",
        "pass",
        (POLICIES + "launching.py::test_quota_or_refusal_ends_the_request_at_once",),
    ),
    Mutation(
        "rejected call on a new stream",
        "",
        "application/provisioning.py",
        "        if rejected is not None:",
        "        if False:",
        (POLICIES + "launching.py::test_definite_rejection_gets_the_next_epoch",),
    ),
    Mutation(
        "all or nothing ignored",
        "",
        "infrastructure/aws/run_instances.py",
        'result["MinCount"] = count if content.get("all_or_nothing") else 1',
        'result["MinCount"] = 1',
        (POLICIES + "launching.py::test_all_or_nothing",),
    ),
    Mutation(
        "surplus kept",
        "",
        "application/projections/machines.py",
        '        _owe(row, "surplus: nobody asks for it any more")',
        "        pass",
        (POLICIES + "launching.py::test_cancel_after_the_intent",),
    ),
    Mutation(
        "surplus ended while somebody waits for it",
        "",
        "application/demand.py",
        '        if more > 0 and same and request["rc_account"] == rc_account:',
        "        if False:",
        (POLICIES + "launching.py::test_surplus_is_dealt_to_open_demand",),
    ),
    Mutation(
        "returned machine asked for again",
        "",
        "infrastructure/read_models/sql_work.py",
        "coalesce(sum(m.units) FILTER (WHERE m.result = 'fail' AND m.return_id = ''), 0)",
        "coalesce(sum(m.units) FILTER (WHERE m.result = 'fail'), 0)",
        (POLICIES + "returning.py::test_returned_before_it_runs",),
    ),
    Mutation(
        "stranger reported terminated",
        "",
        "application/finishing.py",
        "                    refused.append([machine_id or name, NOT_OURS])",
        "                    pass",
        (POLICIES + "returning.py::test_living_stranger_is_refused",),
    ),
    Mutation(
        "return waits for ever for a forgotten machine that EC2 keeps",
        "",
        "application/finishing.py",
        "elif instance.machine_id in refusals:",
        "elif False:",
        (POLICIES + "returning.py::test_forgotten_machine_that_ec2_refuses_to_end",),
    ),
    Mutation(
        "orphans ended however many",
        "",
        "application/reconciliation.py",
        "        if doomed and len(orphans) > max(MOST_ORPHANS, ORPHAN_SHARE * fleet):",
        "        if False:",
        (POLICIES + "returning.py::test_many_orphans_are_only_reported",),
    ),
    Mutation(
        "orphans ended however young",
        "",
        "application/reconciliation.py",
        "and wall - i.launch_time > ORPHAN_AGE",
        "and True",
        (POLICIES + "returning.py::test_young_orphans_live",),
    ),
    Mutation(
        "orphans ended however old the log",
        "",
        "application/reconciliation.py",
        "and i.launch_time > began + CLOCK_OFF",
        "and True",
        (POLICIES + "returning.py::test_orphans_older_than_the_log_live",),
    ),
    Mutation(
        "clock trusted by which a log was restored",
        "",
        "application/reconciliation.py",
        "began + CLOCK_OFF",
        "began",
        (POLICIES + "returning.py::test_orphans_live_when_the_clock_was_slow",),
    ),
    Mutation(
        "stale sweep trusted",
        "",
        "interfaces/hostfactory/reads.py",
        "model.last_sweep(place, call.now) < longest",
        "model.last_sweep(place, call.now) >= 0",
        (POLICIES + "returning.py::test_stale_sweep_is_an_error",),
    ),
    Mutation(
        "polls never back off",
        "",
        "application/reconciliation.py",
        "min(LONGEST_POLL, self._poll_every * 2)",
        "FIRST_POLL",
        (POLICIES + "returning.py::test_polls_back_off",),
    ),
    Mutation(
        "silence of HostFactory counted as calling",
        "",
        "infrastructure/event_store/notebook.py",
        "LONGEST_GAP = 120.0",
        "LONGEST_GAP = 1e9",
        (
            POLICIES + "worker.py::test_a_stopped_host_factory_costs_nothing",
            POLICIES + "worker.py::test_seldom_calls_are_no_calling_time",
        ),
    ),
    Mutation(
        "machines that were never named kept",
        "",
        "infrastructure/read_models/sql_work.py",
        "AND r.answered_final = 1 AND r.source = 'hostfactory'",
        "AND r.answered_final = 2 AND r.source = 'hostfactory'",
        (POLICIES + "worker.py::test_machines_that_are_never_named_are_returned",),
    ),
    # -- stores -----------------------------------------------------------------------------------
    Mutation(
        "PostgreSQL without its advisory lock",
        "",
        "infrastructure/event_store/postgresql.py",
        'f"pg_advisory_xact_lock({LOCK})"',
        '"1"',
        (
            CONTRACTS
            + "processes.py::test_eight_writers_and_a_reader_that_follows[postgresql-open]",
        ),
    ),
    Mutation(
        "fence off on PostgreSQL",
        "",
        "infrastructure/event_store/postgresql.py",
        "if fence is not None and self._here.looked[4] != fence[1]:",
        "if False:",
        (CONTRACTS + "event_store.py::test_a_lost_lease_is_refused[postgresql]",),
    ),
    Mutation(
        "commands answered before the commit that they share",
        "",
        "application/command_queue.py",
        "outcomes = store.together([work(command, principal) for command, principal, _ in some])",
        """def answer(command: Any, principal: str, future: Any) -> Any:
                return lambda: future.set_result(work(command, principal)())

            store.together([answer(*one) for one in some])
            return""",
        (TOGETHER + "nobody_is_answered_before_the_commit[sqlite-commit.together.before#2]",),
    ),
    Mutation(
        "writes of a command that conflicted kept in the commit of the others",
        "",
        "infrastructure/event_store/sql.py",
        'self.connection.execute("ROLLBACK TO shared")',
        "self.connection.total_changes",
        (TOGETHER + "a_conflict_takes_back_its_own_writes_alone[sqlite]",),
    ),
    Mutation(
        "log's end not taken back with a command that conflicted",
        "",
        "infrastructure/event_store/sql.py",
        "            here.appended = appended\n",
        "            del appended\n",
        (TOGETHER + "the_same_command_twice_gives_one_result[sqlite]",),
    ),
    Mutation(
        "a shared commit that went on after the disk was full",
        "",
        "infrastructure/event_store/sql.py",
        "            raise self._here.spoilt\n        return outcome",
        "            pass\n        return outcome",
        (TOGETHER + "a_disk_that_is_full_in_the_middle_fails_all[sqlite]",),
    ),
    Mutation(
        "a read model that failed in a shared commit followed by PostgreSQL all the same",
        "",
        "infrastructure/event_store/postgresql.py",
        "        if fence or tracking or any(asked) or self._here.anew:",
        "        if fence or tracking or any(asked):",
        (TOGETHER + "a_failed_projection_stops_alone_and_stays_where_it_stopped[postgresql]",),
    ),
    Mutation(
        "checksum of a line of JSON not compared",
        "",
        "infrastructure/event_store/json_log.py",
        "if sha256(line[:-SEAL]).hexdigest().encode() != seal[len(CHECKSUM) : -2]:",
        "if False:",
        ("tests/infrastructure/test_json_log.py::test_a_changed_line_in_the_middle_is_named",),
    ),
    Mutation(
        "DynamoDB's head put whatever it was",
        "",
        "infrastructure/event_store/dynamodb_log.py",
        '"ConditionExpression": "rev = :rev",',
        '"ConditionExpression": "rev <> :rev OR rev = :rev",',
        ("tests/infrastructure/test_dynamodb_store.py::test_another_commit_came_first",),
    ),
    Mutation(
        "demand divided whoever divided some meanwhile",
        "",
        "application/turn.py",
        'reach("demand.divided")',
        'reach("demand.divided")\n        number = self.work.tracked(DEMAND) + 1',
        (MACHINES + "test_two_workers_want_the_same_demand[postgresql]",),
    ),
    Mutation(
        "what was known of an account kept when its lease changed hands",
        "",
        "interfaces/worker/loop.py",
        "        self.side.policies.reset()",
        "        self.side.policies()",
        ("tests/application/test_accounts.py::test_a_second_worker_is_given_one",),
    ),
    Mutation(
        "what is raised forgotten",
        "",
        "application/alerting.py",
        "        before = set(raised)",
        "        before: set[str] = set()",
        (ALERTING + "test_a_crossing_is_one_event_one_line_and_a_metric",),
    ),
    Mutation(
        "a changed event passed over by what measures",
        "",
        "infrastructure/telemetry/monitoring.py",
        "if row[4] and is_damaged(row, previous):",
        "if row[4] and not row:",
        (ALERTING + "test_a_changed_event_within_the_log_is_told_soon",),
    ),
    Mutation(
        "an alert that was not taken is dropped",
        "",
        "infrastructure/telemetry/sinks.py",
        "                sink.failures = min(10, sink.failures + 1)",
        "                sink.waiting.popleft()",
        (ALERTING + "test_a_sink_that_fails_is_logged_and_told_later",),
    ),
    Mutation(
        "events counted again by the next worker",
        "",
        "infrastructure/telemetry/monitoring.py",
        "            self._track(sound[-1][0])",
        "            pass",
        (MONITORING + "test_each_event_is_counted_once_across_workers",),
    ),
    Mutation(
        "a dead worker's figures served",
        "",
        "infrastructure/telemetry/exposition.py",
        "up = lives and age is not None and age <= MISSED * interval",
        "up = age is not None",
        (
            "tests/infrastructure/test_metrics.py::"
            "test_figures_of_a_worker_that_is_not_there_are_not_served",
        ),
    ),
    Mutation(
        "ready without the store",
        "",
        "interfaces/rest/health.py",
        "        await request.app.state.looks.end()",
        "        pass",
        ("tests/interfaces/test_rest_health.py::test_it_is_not_ready_without_its_store",),
    ),
)


def settings_without_effect() -> Iterator[Mutation]:
    """Each key of docs/reference/tuning-keys.md held to its default, whatever is set: the test that
    the page names sees it."""
    from infrastructure.configuration_keys import place_of
    from tests.house.test_tuning_keys import rows

    for row in rows():
        model, field = place_of(row.key)
        file = str(Path(inspect.getfile(model)).relative_to(ROOT))
        source = (ROOT / file).read_text()
        (section,) = (
            statement
            for statement in ast.parse(source).body
            if isinstance(statement, ast.ClassDef) and statement.name == model.__name__
        )
        (given,) = (
            statement
            for statement in section.body
            if isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.target.id == field
        )
        lines = source.splitlines(keepends=True)
        before = "".join(lines[section.lineno - 1 : given.lineno - 1])
        old = "".join(lines[given.lineno - 1 : given.end_lineno])
        default = ast.unparse(given.value) if given.value else "None"
        # The section's file may not have them.
        names = "from typing import Annotated, Any\nfrom pydantic import BeforeValidator\n"
        held = f"    {field}: Annotated[Any, BeforeValidator(lambda _: {default})] = {default}\n"
        tests = (f"tests/{row.test}",)
        yield Mutation(
            f"{row.key} is ignored", "", file, before + old, names + before + held, tests
        )


def changed(text: str, mutation: Mutation) -> str:
    """The text with the one change. Raises ValueError when the old text is not there just once."""
    found = text.count(mutation.old)
    if found != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} has its old text {found} times")
    return text.replace(mutation.old, mutation.new)


def _run(tree: Path, tests: tuple[str, ...], longest: float) -> str:
    """Why the tests fail in this tree, in a line; "" when they pass."""
    environ = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    ours = f"application.__file__.startswith({str(tree)!r})"
    check = f"import application; assert {ours}, application.__file__"
    subprocess.run([sys.executable, "-c", check], cwd=tree, env=environ, check=True)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "-x", "-q",
             *tests],
            cwd=tree,
            env=environ,
            capture_output=True,
            text=True,
            timeout=longest,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"not done in {longest:g} s"
    if ended.returncode not in (0, 1):
        raise ValueError(f"{' '.join(tests)} cannot be run:\n{ended.stdout}{ended.stderr}")
    if ended.returncode == 0:
        return ""
    reasons = (line for line in ended.stdout.splitlines() if line.startswith("E  "))
    return next(reasons, "E").removeprefix("E").strip()


def _try(mutation: Mutation, pristine: Path) -> tuple[str, float]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        tree = Path(place) / "tree"
        shutil.copytree(pristine, tree)
        file = tree / mutation.file
        file.write_text(changed(file.read_text(), mutation))
        reason = _run(tree, mutation.tests, LONGEST)
    return reason, time.monotonic() - began


def main(names: list[str]) -> int:
    """Exit status: 0 when every mutation is killed."""
    every = (*MUTATIONS, *settings_without_effect())
    chosen = [m for m in every if not names or m.name in names]
    for mutation in chosen:
        changed((ROOT / mutation.file).read_text(), mutation)
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as place:
        pristine = Path(place) / "tree"
        shutil.copytree(ROOT, pristine, ignore=LEFT_OUT)
        named = tuple(sorted({test for mutation in chosen for test in mutation.tests}))
        unbroken = _run(pristine, named, LONGEST_UNBROKEN)
        if unbroken:
            print(f"the tests do not pass without any mutation: {unbroken}")
            return 1
        print(f"{'mutation':<50} {'row':<3} {'verdict':<8} seconds  how it was noticed")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            tried = pool.map(lambda mutation: _try(mutation, pristine), chosen)
            for mutation, (reason, seconds) in zip(chosen, tried, strict=True):
                survived += not reason
                verdict = "killed" if reason else "SURVIVED"
                print(
                    f"{mutation.name:<50} {mutation.row or '-':<3} {verdict:<8} {seconds:7.1f}  "
                    f"{reason[:100]}",
                    flush=True,
                )
    print(f"{len(chosen)} mutations, {survived} survived")
    return 1 if survived or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
