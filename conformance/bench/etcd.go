package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	puts = 200
	// As long as a stored pod.
	valueBytes = 3600
	putPause   = 25 * time.Millisecond
)

// measureEtcd: what a server on etcd cannot be faster than. From just before a put until a watch of the prefix has it.
func measureEtcd(ctx context.Context, o Options) (*Result, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{o.Server}, DialTimeout: patience})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	const prefix = "/bench/"
	seen := make(chan time.Duration, puts)
	watch := client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if created, open := <-watch; !open || created.Err() != nil {
		return nil, fmt.Errorf("the watch did not open: %w", created.Err())
	}
	go func() {
		for answer := range watch {
			for _, event := range answer.Events {
				seen <- time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(event.Kv.Value))))
			}
		}
	}()
	count := max(int(puts*o.Scale), parallel)
	acked, delivered := make([]time.Duration, 0, count), make([]time.Duration, 0, count)
	for i := range count {
		value := bytes.Repeat([]byte{'x'}, valueBytes)
		begun := time.Now()
		binary.BigEndian.PutUint64(value, uint64(begun.UnixNano()))
		if _, err := client.Put(ctx, fmt.Sprintf("%s%d", prefix, i%100), string(value)); err != nil {
			return nil, err
		}
		acked = append(acked, time.Since(begun))
		select {
		case delay := <-seen:
			delivered = append(delivered, delay)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		time.Sleep(putPause)
	}
	return &Result{Rows: Rows{
		"etcd_put_p50_ms": quantile(acked, 0.5), "etcd_put_p99_ms": quantile(acked, 0.99),
		"etcd_put_to_watch_p50_ms": quantile(delivered, 0.5), "etcd_put_to_watch_p99_ms": quantile(delivered, 0.99),
	}}, nil
}
