package main

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func openRangeStream(ctx context.Context, client *clientv3.Client, prefix string) (pb.KV_RangeStreamClient, error) {
	request := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix))}
	return pb.NewKVClient(client.ActiveConnection()).RangeStream(ctx, request)
}
