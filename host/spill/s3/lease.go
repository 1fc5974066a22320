package s3

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// marker begins the name of an incarnation in a bucket.
const marker = "wray-"

func keyOf(prefix, incarnation string, n int64) string {
	return fmt.Sprintf("%s%s%s/%d", prefix, marker, incarnation, n)
}

func leaseKey(prefix, incarnation string) string { return prefix + marker + incarnation + "/lease" }

// parseKey tells whose an object is. Of what nobody of us can have written it
// reports false, and that is not touched.
func parseKey(prefix, key string) (incarnation string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix+marker)
	if !ok {
		return "", false
	}
	incarnation, name, ok := strings.Cut(rest, "/")
	if !ok || len(incarnation) != 16 || strings.Trim(incarnation, "0123456789abcdef") != "" {
		return "", false
	}
	if name == "lease" {
		return incarnation, true
	}
	n, err := strconv.ParseInt(name, 10, 64)
	return incarnation, err == nil && n > 0 && strconv.FormatInt(n, 10) == name
}

// renew writes the lease.
func (b *Bucket) renew(ctx context.Context) error {
	key := leaseKey(b.prefix, b.incarnation)
	const text = "A node of wray keeps objects here. They are of no use to anybody else.\n"
	return b.do(ctx, "write", key, 0, func(ctx context.Context) error {
		_, err := b.core.PutObject(ctx, b.bucket, key, strings.NewReader(text), int64(len(text)), "", "", minio.PutObjectOptions{ContentType: "text/plain"})
		return err
	})
}

// keepLease renews the lease, and removes what dead nodes have left, first at
// once.
func (b *Bucket) keepLease() {
	// What cannot be swept now is swept by the next.
	_ = b.sweep(b.ctx)
	tick := time.NewTicker(b.limits.renew)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-b.ending:
			return
		}
		_ = b.renew(b.ctx) // the next time may do; there are several before others take us for dead
	}
}

// sweep removes what incarnations have left that are dead, by the server's
// clock.
func (b *Bucket) sweep(ctx context.Context) error {
	mine, err := b.core.StatObject(ctx, b.bucket, leaseKey(b.prefix, b.incarnation), minio.StatObjectOptions{})
	if err != nil {
		return err
	}
	seen := map[string]time.Time{} // when an incarnation was last heard of
	left := map[string][]remains{}
	for o := range b.core.Client.ListObjects(ctx, b.bucket, minio.ListObjectsOptions{Prefix: b.prefix + marker, Recursive: true}) {
		if o.Err != nil {
			return o.Err
		}
		if i, ok := parseKey(b.prefix, o.Key); ok && i != b.incarnation {
			left[i] = append(left[i], remains{key: o.Key, object: true})
			if o.LastModified.After(seen[i]) {
				seen[i] = o.LastModified
			}
		}
	}
	for u := range b.core.ListIncompleteUploads(ctx, b.bucket, b.prefix+marker, true) {
		if u.Err != nil {
			return u.Err
		}
		if i, ok := parseKey(b.prefix, u.Key); ok && i != b.incarnation {
			left[i] = append(left[i], remains{key: u.Key, upload: u.UploadID})
			if u.Initiated.After(seen[i]) {
				seen[i] = u.Initiated
			}
		}
	}
	for i, list := range left {
		if mine.LastModified.Sub(seen[i]) <= b.limits.dead {
			continue
		}
		for _, r := range list {
			if err := b.remove(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}
