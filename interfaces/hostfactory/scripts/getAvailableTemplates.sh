#!/bin/sh
verb=getAvailableTemplates
[ -h "$0" ] && script=$(readlink -f "$0") || script=$0
case $script in */*) here=${script%/*} ;; *) here=. ;; esac
. "$here/run"
