#!/bin/sh
verb=getAvailableTemplates
. "${0%/*}/run"
