#!/bin/sh
# Make everything that `snakemake --profile gke` needs in a project of Google's cloud: a bucket, a
# private cluster with spot nodes, two service accounts without keys, a repository of images.
#
#   export GOOGLE_CLOUD_PROJECT=PROJECT
#   deploy/gke/set-up.sh > finescale.env     what the profile reads; `. ./finescale.env`
#
# What is there already is left as it is: after a failure, run it again. Optional:
#   FINESCALE_BILLING_ACCOUNT, FINESCALE_BUDGET   an alarm at so much a month, e.g. 200EUR
#   FINESCALE_ADMIN_RANGE    who may reach the API server, e.g. 192.0.2.0/24 (default: any address,
#                            which must still log in)
# and those of settings.sh.
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=settings.sh
. "$HERE/settings.sh"
exec 3>&1 1>&2 # what is reported goes to standard error; standard output is the environment

grant() { # grant ACCOUNT ROLE: in the project
    gc projects add-iam-policy-binding "$PROJECT" --member="serviceAccount:$1" --role="$2" \
        --condition=None >/dev/null
}
grant_bucket() { # grant_bucket ROLE: to the pods, in the bucket
    gc storage buckets add-iam-policy-binding "gs://$BUCKET" --member="serviceAccount:$PODS" \
        --role="$1" >/dev/null
}

gc services enable artifactregistry.googleapis.com billingbudgets.googleapis.com \
    compute.googleapis.com container.googleapis.com iam.googleapis.com storage.googleapis.com

# Private addresses only: nodes reach Google's services, and nothing else, since there is no NAT.
exists compute networks describe "$NAME" ||
    gc compute networks create "$NAME" --subnet-mode=custom
exists compute networks subnets describe "$NAME" --region="$REGION" ||
    gc compute networks subnets create "$NAME" --network="$NAME" --region="$REGION" \
        --range=10.0.0.0/20 --enable-private-ip-google-access

exists storage buckets describe "gs://$BUCKET" ||
    gc storage buckets create "gs://$BUCKET" --location="$REGION" --uniform-bucket-level-access \
        --public-access-prevention --soft-delete-duration=7d
gc storage buckets update "gs://$BUCKET" --lifecycle-file="$HERE/lifecycle.json"

exists artifacts repositories describe "$NAME" --location="$REGION" ||
    gc artifacts repositories create "$NAME" --repository-format=docker --location="$REGION"

# Pods read and write objects of this bucket; the storage plugin asks whether the bucket is there
# (storage.buckets.get) and names the project to be billed (serviceusage.services.use).
exists iam service-accounts describe "$PODS" ||
    gc iam service-accounts create "$NAME-pods" --display-name="Finescale: jobs"
grant_bucket roles/storage.objectUser
grant_bucket roles/storage.legacyBucketReader
grant "$PODS" roles/serviceusage.serviceUsageConsumer

exists iam service-accounts describe "$NODES" ||
    gc iam service-accounts create "$NAME-nodes" --display-name="Finescale: nodes"
grant "$NODES" roles/container.defaultNodeServiceAccount
gc artifacts repositories add-iam-policy-binding "$NAME" --location="$REGION" \
    --member="serviceAccount:$NODES" --role=roles/artifactregistry.reader >/dev/null

# One small node for the cluster's own pods; those for jobs come and go.
exists container clusters describe "$NAME" --location="$ZONE" ||
    gc container clusters create "$NAME" --location="$ZONE" --release-channel=regular \
        --network="$NAME" --subnetwork="$NAME" --enable-ip-alias --enable-private-nodes \
        --enable-dataplane-v2 --enable-shielded-nodes \
        ${FINESCALE_ADMIN_RANGE:+--enable-master-authorized-networks} \
        ${FINESCALE_ADMIN_RANGE:+--master-authorized-networks="$FINESCALE_ADMIN_RANGE"} \
        --workload-pool="$PROJECT.svc.id.goog" --workload-metadata=GKE_METADATA \
        --service-account="$NODES" --machine-type=e2-standard-2 --disk-size=50 --num-nodes=1 \
        --autoscaling-profile=optimize-utilization --logging=SYSTEM --monitoring=SYSTEM
pool() { # pool NAME MOST ARGUMENT...: from no node to MOST
    pool=$1 most=$2
    shift 2
    exists container node-pools describe "$pool" --cluster="$NAME" --location="$ZONE" ||
        gc container node-pools create "$pool" --cluster="$NAME" --location="$ZONE" \
            --machine-type="$MACHINE" --disk-size=100 --num-nodes=0 \
            --enable-autoscaling --min-nodes=0 --max-nodes="$most" \
            --workload-metadata=GKE_METADATA --service-account="$NODES" "$@"
}
pool spot "$SPOT_NODES" --spot --location-policy=ANY \
    --node-taints=cloud.google.com/gke-spot=true:NoSchedule
pool steady 2 # for jobs with `spot: 0`
gc container clusters get-credentials "$NAME" --location="$ZONE"

# The workload pool exists once the cluster does.
gc iam service-accounts add-iam-policy-binding "$PODS" --role=roles/iam.workloadIdentityUser \
    --member="serviceAccount:$PROJECT.svc.id.goog[finescale/finescale]" >/dev/null
kubectl apply -k "$HERE"
kubectl annotate serviceaccount finescale --namespace=finescale --overwrite \
    "iam.gke.io/gcp-service-account=$PODS"

if [ -n "${FINESCALE_BILLING_ACCOUNT:-}" ]; then
    [ -n "$(budgets)" ] ||
        gcloud --quiet billing budgets create --billing-account="$FINESCALE_BILLING_ACCOUNT" \
            --display-name="$NAME-$PROJECT" --budget-amount="${FINESCALE_BUDGET:?e.g. 200EUR}" \
            --filter-projects="projects/$PROJECT" \
            --threshold-rule=percent=0.5 --threshold-rule=percent=0.9 --threshold-rule=percent=1.0
fi

cat >&3 <<END
export GOOGLE_CLOUD_PROJECT=$PROJECT
export FINESCALE_PREFIX=gs://$BUCKET/run
export FINESCALE_IMAGE=$IMAGES/finescale:$VERSION
END
