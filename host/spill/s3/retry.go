package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
)

// EndpointFlag, RegionFlag and CredentialsFlag are the flags that errors name.
const (
	EndpointFlag    = "--spill-endpoint"
	RegionFlag      = "--spill-region"
	CredentialsFlag = "--spill-credentials"
)

// maxPause is the longest time between two attempts.
const maxPause = 5 * time.Second

// do makes a request that moves n bytes of the object key, and makes it again
// where that may help. verb is what it does, for the error.
func (b *Bucket) do(ctx context.Context, verb, key string, n int64, f func(context.Context) error) error {
	begin := time.Now()
	limit := b.limits.attempt * time.Duration(1+n/(2<<20))
	pause := b.limits.pause
	for tries := 1; ; tries++ {
		actx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
		err := f(actx)
		if err != nil && actx.Err() != nil && ctx.Err() == nil {
			err = context.Cause(actx)
		}
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s s3://%s/%s: %w", verb, b.bucket, key, context.Cause(ctx))
		}
		var e *wray.Error
		if errors.As(err, &e) {
			return err
		}
		if !temporary(err) || time.Since(begin)+pause > b.limits.patience {
			return b.asError(verb, key, err, tries, time.Since(begin))
		}
		wait := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
		pause = min(2*pause, maxPause)
	}
}

// statusOf returns what a server answered: its status, and the code in its body.
func statusOf(err error) (status int, code string) {
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		return 0, ""
	}
	return r.StatusCode, r.Code
}

// temporary reports whether another attempt may end otherwise: there was no
// answer, or it broke off, or it says so.
func temporary(err error) bool {
	if errors.Is(err, errRange) {
		return false
	}
	status, code := statusOf(err)
	switch code {
	case "RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "BadDigest", "XMinioServerNotInitialized":
		return true
	}
	return status < 300 || status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// asError says what became of a request, and what to do about it.
func (b *Bucket) asError(verb, key string, err error, tries int, took time.Duration) *wray.Error {
	status, code := statusOf(err)
	e := &wray.Error{Code: wray.CodeStoreFull, Message: fmt.Sprintf("%s s3://%s/%s at %s: %v", verb, b.bucket, key, b.endpoint, err)}
	if status > 0 {
		e.Message += fmt.Sprintf(" (status %d %s)", status, code)
	}
	if tries > 1 {
		e.Message += fmt.Sprintf(", tried %d times in %v", tries, took.Round(time.Millisecond))
	}
	if verb == "read" {
		e.Code = wray.CodeObjectLost
	}
	switch {
	case code == "NoSuchBucket":
		e.Hint = "make the bucket, or name another with " + objectstore.SpillDirFlag
	case status == http.StatusNotFound, status == http.StatusPreconditionFailed, errors.Is(err, errRange):
		e.Hint = "somebody else removed or replaced it: give wray a prefix of its own with " + objectstore.SpillDirFlag + ", without a rule that lets objects expire"
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		e.Code = wray.CodeDenied
		e.Hint = "check the credentials (" + CredentialsFlag + ", $AWS_ACCESS_KEY_ID) and that they may read, write, list and delete under the prefix"
	case status == http.StatusMovedPermanently, status == http.StatusBadRequest && code == "AuthorizationHeaderMalformed":
		e.Hint = "name the bucket's region with " + RegionFlag
	default:
		e.Hint = "check that the server answers (" + EndpointFlag + "), or name another place with " + objectstore.SpillDirFlag
	}
	return e
}
