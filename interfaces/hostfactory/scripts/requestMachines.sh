#!/bin/sh
verb=requestMachines
. "${0%/*}/run"
