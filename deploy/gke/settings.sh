# shellcheck shell=sh disable=SC2034
# What set-up.sh makes and tear-down.sh removes, and the prefix of its objects; read by both.
# Every value can be set from outside.

: "${GOOGLE_CLOUD_PROJECT:?export GOOGLE_CLOUD_PROJECT=PROJECT, whom everything is billed to}"
PROJECT=$GOOGLE_CLOUD_PROJECT
NAME=${FINESCALE_CLUSTER:-finescale}
REGION=${FINESCALE_REGION:-europe-west1}
ZONE=${FINESCALE_ZONE:-$REGION-b}
BUCKET=${FINESCALE_BUCKET:-$PROJECT-$NAME}
MACHINE=${FINESCALE_MACHINE_TYPE:-e2-highmem-16} # the largest pod of the profile fits
SPOT_NODES=${FINESCALE_SPOT_NODES:-10}

PODS=$NAME-pods@$PROJECT.iam.gserviceaccount.com
NODES=$NAME-nodes@$PROJECT.iam.gserviceaccount.com
IMAGES=$REGION-docker.pkg.dev/$PROJECT/$NAME
VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$HERE/../../workflow/lib/finescale/__init__.py")

# gc ARGUMENT...: gcloud in the project, without questions
gc() { gcloud --quiet --project="$PROJECT" "$@"; }
# exists ARGUMENT...: whether gcloud can describe it
exists() { gc "$@" >/dev/null 2>&1; }
# budgets: those of this set-up
budgets() {
    gcloud --quiet billing budgets list --billing-account="$FINESCALE_BILLING_ACCOUNT" \
        --filter="displayName=$NAME-$PROJECT" --format="value(name)"
}
