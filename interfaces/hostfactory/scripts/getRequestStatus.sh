#!/bin/sh
verb=getRequestStatus
. "${0%/*}/run"
