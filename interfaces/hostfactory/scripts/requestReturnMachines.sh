#!/bin/sh
verb=requestReturnMachines
. "${0%/*}/run"
