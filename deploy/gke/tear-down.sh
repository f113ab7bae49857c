#!/bin/sh
# Remove what set-up.sh made. The bucket, which holds the products, goes only with --with-data.
#
#   export GOOGLE_CLOUD_PROJECT=PROJECT
#   deploy/gke/tear-down.sh [--with-data]
#
# With the same variables as set-up.sh. What is gone already is passed over.
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=settings.sh
. "$HERE/settings.sh"

revoke() { # revoke ACCOUNT ROLE: in the project
    gc projects remove-iam-policy-binding "$PROJECT" --member="serviceAccount:$1" --role="$2" \
        --condition=None >/dev/null || echo "$1 has no $2"
}

! exists container clusters describe "$NAME" --location="$ZONE" ||
    gc container clusters delete "$NAME" --location="$ZONE"
! exists compute networks subnets describe "$NAME" --region="$REGION" ||
    gc compute networks subnets delete "$NAME" --region="$REGION"
! exists compute networks describe "$NAME" ||
    gc compute networks delete "$NAME"
! exists artifacts repositories describe "$NAME" --location="$REGION" ||
    gc artifacts repositories delete "$NAME" --location="$REGION"

if exists iam service-accounts describe "$PODS"; then
    revoke "$PODS" roles/serviceusage.serviceUsageConsumer
    gc iam service-accounts delete "$PODS"
fi
if exists iam service-accounts describe "$NODES"; then
    revoke "$NODES" roles/container.defaultNodeServiceAccount
    gc iam service-accounts delete "$NODES"
fi

if [ -n "${FINESCALE_BILLING_ACCOUNT:-}" ]; then
    for budget in $(budgets); do
        gcloud --quiet billing budgets delete "$budget"
    done
fi

if [ "${1:-}" = --with-data ]; then
    ! exists storage buckets describe "gs://$BUCKET" ||
        gc storage rm --recursive "gs://$BUCKET"
else
    echo "gs://$BUCKET stays, and is paid for; --with-data removes it with all products"
fi
