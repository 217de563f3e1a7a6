#!/bin/sh
verb=getReturnRequests
. "${0%/*}/run"
