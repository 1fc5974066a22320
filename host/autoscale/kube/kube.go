// Package kube is the provider of nodes that are the pods of a StatefulSet or a
// Deployment. It reads and writes the workload's scale, and tells which pods are
// to go; Kubernetes starts and stops them. Of its API it speaks what it needs,
// in JSON over HTTP.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wray-project/wray/host/autoscale/plan"
)

// API is how the API of a cluster is reached.
type API struct {
	Base      string // such as https://10.0.0.1:443
	Namespace string // of this pod
	TokenFile string // read for each request: it is exchanged about once an hour
	Client    *http.Client
}

// accounts is where a pod finds its service account.
const accounts = "/var/run/secrets/kubernetes.io/serviceaccount"

// InCluster returns the API of the cluster that this process is a pod of.
func InCluster() (*API, error) { return inCluster(os.Getenv, accounts) }

func inCluster(env func(string) string, dir string) (*API, error) {
	host, port := env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
	}
	ns, err := os.ReadFile(filepath.Join(dir, "namespace"))
	if err != nil {
		return nil, fmt.Errorf("%w: give the pod a service account with automountServiceAccountToken: true", err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s has no certificate", filepath.Join(dir, "ca.crt"))
	}
	return &API{Base: "https://" + net.JoinHostPort(host, port), Namespace: strings.TrimSpace(string(ns)), TokenFile: filepath.Join(dir, "token"),
		Client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second}}}, nil
}

// Workload is whose pods are the nodes: one of its names is set.
type Workload struct {
	Namespace   string // default API.Namespace
	StatefulSet string
	Deployment  string
}

// Provider scales one workload. It is an autoscale.Provider.
type Provider struct {
	api  *API
	w    Workload
	kind string // in the API's paths
	name string
	// A Deployment's pods are looked for every poll, until appear is over.
	poll, appear time.Duration
}

// New returns the provider of a workload.
func New(api *API, w Workload) *Provider {
	if w.Namespace == "" {
		w.Namespace = api.Namespace
	}
	p := &Provider{api: api, w: w, kind: "statefulsets", name: w.StatefulSet, poll: 500 * time.Millisecond, appear: 10 * time.Second}
	if w.Deployment != "" {
		p.kind, p.name = "deployments", w.Deployment
	}
	return p
}

// scale is the scale subresource, autoscaling/v1 Scale.
type scale struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name            string `json:"name"`
		Namespace       string `json:"namespace"`
		ResourceVersion string `json:"resourceVersion,omitempty"`
	} `json:"metadata"`
	Spec struct {
		Replicas int `json:"replicas"`
	} `json:"spec"`
	Status struct {
		Replicas int    `json:"replicas"`
		Selector string `json:"selector,omitempty"`
	} `json:"status"`
}

// pod is the metadata of a pod, as far as it is of interest.
type pod struct {
	Metadata struct {
		Name        string            `json:"name"`
		Deleted     string            `json:"deletionTimestamp"`
		Annotations map[string]string `json:"annotations"`
		Owners      []struct {
			Kind       string `json:"kind"`
			Name       string `json:"name"`
			Controller bool   `json:"controller"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
}

// going reports whether the pod was told to stop.
func (x *pod) going() bool { return x.Metadata.Deleted != "" }

type podList struct {
	Metadata struct {
		Continue string `json:"continue"`
	} `json:"metadata"`
	Items []pod `json:"items"`
}

// deletionCost says which pods of a ReplicaSet go first: those that cost least,
// of those that are ready.
const deletionCost = "controller.kubernetes.io/pod-deletion-cost"

// goesFirst is the cost of a pod that is to go. Others cost 0.
const goesFirst = "-1000000"

// maxBody bounds an answer, and pageSize the pods in one.
const (
	maxBody  = 16 << 20
	pageSize = 500
)

// List implements autoscale.Provider. Instances have the pods' names.
func (p *Provider) List(ctx context.Context) ([]plan.Instance, error) {
	s, err := p.scale(ctx)
	if err != nil {
		return nil, err
	}
	pods, err := p.pods(ctx, s)
	if err != nil {
		return nil, err
	}
	var list []plan.Instance
	if p.w.StatefulSet != "" {
		for i := range s.Spec.Replicas { // also those that are not made yet
			list = append(list, plan.Instance{Name: fmt.Sprintf("%s-%d", p.name, i), Rank: i})
		}
	}
	for i := range pods {
		name := pods[i].Metadata.Name
		if p.w.StatefulSet == "" {
			list = append(list, plan.Instance{Name: name})
		} else if rank := p.ordinal(name); rank >= s.Spec.Replicas {
			list = append(list, plan.Instance{Name: name, Rank: rank})
		}
	}
	return list, nil
}

// Start implements autoscale.Provider.
func (p *Provider) Start(ctx context.Context, n int) error {
	var before int
	s, err := p.resize(ctx, func(s *scale) (int, error) { before = s.Spec.Replicas; return before + n, nil })
	if err != nil || p.w.StatefulSet != "" {
		return err
	}
	// The names of a Deployment's pods are not known before they are there.
	late := time.NewTimer(p.appear)
	defer late.Stop()
	for {
		there, err := p.staying(ctx, s)
		if err != nil {
			return err
		}
		if there >= s.Spec.Replicas {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(p.poll):
			continue
		case <-late.C:
		}
		err = fmt.Errorf("deployment %s has %d pods of %d that were asked for: kubectl describe tells why", p.name, there, s.Spec.Replicas)
		// What is not made is asked for again later, by the way of other failures.
		_, back := p.resize(ctx, func(s *scale) (int, error) { return min(s.Spec.Replicas, max(before, there)), nil })
		return errors.Join(err, back)
	}
}

// staying counts the pods that are not on their way out.
func (p *Provider) staying(ctx context.Context, s *scale) (n int, err error) {
	pods, err := p.pods(ctx, s)
	for i := range pods {
		if !pods[i].going() {
			n++
		}
	}
	return n, err
}

// Stop implements autoscale.Provider. Pods get SIGTERM, on which their nodes
// drain.
func (p *Provider) Stop(ctx context.Context, names []string) error {
	if p.w.StatefulSet != "" {
		_, err := p.resize(ctx, func(s *scale) (int, error) {
			last := s.Spec.Replicas
			for last > 0 && slices.Contains(names, fmt.Sprintf("%s-%d", p.name, last-1)) {
				last--
			}
			for _, name := range names {
				if i := p.ordinal(name); i >= 0 && i < last {
					return 0, fmt.Errorf("pod %s is not the last of statefulset %s, which has %d", name, p.name, s.Spec.Replicas)
				}
			}
			return last, nil
		})
		return err
	}
	s, err := p.scale(ctx)
	if err != nil {
		return err
	}
	pods, err := p.pods(ctx, s)
	if err != nil {
		return err
	}
	n := 0
	for i := range pods {
		x := &pods[i]
		cost, marked := x.Metadata.Annotations[deletionCost]
		goes := slices.Contains(names, x.Metadata.Name) && !x.going()
		switch {
		case goes:
			n++
			if cost != goesFirst {
				err = p.mark(ctx, x, goesFirst)
			}
		case marked && cost == goesFirst && !x.going(): // it was to go, and then something failed
			err = p.mark(ctx, x, "0")
		}
		if err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	_, err = p.resize(ctx, func(s *scale) (int, error) { return max(s.Spec.Replicas-n, 0), nil })
	return err
}

// Close implements autoscale.Provider. Pods are not this process's.
func (p *Provider) Close(bool) error { return nil }

// ordinal returns the number of a pod of the StatefulSet, -1 for another.
func (p *Provider) ordinal(name string) int {
	rest, ok := strings.CutPrefix(name, p.name+"-")
	n, err := strconv.Atoi(rest)
	if !ok || err != nil || n < 0 || strconv.Itoa(n) != rest {
		return -1
	}
	return n
}

func (p *Provider) scalePath() string {
	return fmt.Sprintf("/apis/apps/v1/namespaces/%s/%s/%s/scale", url.PathEscape(p.w.Namespace), p.kind, url.PathEscape(p.name))
}

func (p *Provider) scale(ctx context.Context) (*scale, error) {
	s := &scale{}
	if err := p.api.call(ctx, http.MethodGet, p.scalePath(), "", nil, s); err != nil {
		return nil, err
	}
	return s, nil
}

// conflicts is how often a scale is read again that another has written
// meanwhile.
const conflicts = 5

// resize sets how many pods there are to be, and returns the scale.
func (p *Provider) resize(ctx context.Context, to func(*scale) (int, error)) (*scale, error) {
	for try := 1; ; try++ {
		s, err := p.scale(ctx)
		if err != nil {
			return nil, err
		}
		n, err := to(s)
		if err != nil || n == s.Spec.Replicas {
			return s, err
		}
		s.Spec.Replicas = n
		s.APIVersion, s.Kind = "autoscaling/v1", "Scale"
		var now scale
		err = p.api.call(ctx, http.MethodPut, p.scalePath(), "application/json", s, &now)
		if refused := (*Error)(nil); errors.As(err, &refused) && refused.Code == http.StatusConflict && try < conflicts {
			continue
		}
		if err != nil {
			return nil, err
		}
		now.Spec.Replicas = n
		if now.Status.Selector == "" {
			now.Status.Selector = s.Status.Selector
		}
		return &now, nil
	}
}

// pods are those of the workload that run, or will.
func (p *Provider) pods(ctx context.Context, s *scale) (list []pod, err error) {
	if s.Status.Selector == "" {
		return nil, fmt.Errorf("the scale of %s %s has no selector", p.kind, p.name)
	}
	owner := "ReplicaSet"
	if p.w.StatefulSet != "" {
		owner = "StatefulSet"
	}
	q := url.Values{"labelSelector": {s.Status.Selector}, "fieldSelector": {"status.phase!=Failed,status.phase!=Succeeded"}, "limit": {strconv.Itoa(pageSize)}}
	for {
		var page podList
		path := fmt.Sprintf("/api/v1/namespaces/%s/pods?%s", url.PathEscape(p.w.Namespace), q.Encode())
		if err := p.api.call(ctx, http.MethodGet, path, "", nil, &page); err != nil {
			return nil, err
		}
		for i := range page.Items {
			for _, o := range page.Items[i].Metadata.Owners {
				if o.Controller && o.Kind == owner && (owner == "ReplicaSet" || o.Name == p.name) {
					list = append(list, page.Items[i])
				}
			}
		}
		if page.Metadata.Continue == "" {
			return list, nil
		}
		q.Set("continue", page.Metadata.Continue)
	}
}

// mark sets what it costs to delete a pod. That it is gone is no error.
func (p *Provider) mark(ctx context.Context, x *pod, cost string) error {
	patch := map[string]any{"metadata": map[string]any{"annotations": map[string]string{deletionCost: cost}}}
	path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", url.PathEscape(p.w.Namespace), url.PathEscape(x.Metadata.Name))
	err := p.api.call(ctx, http.MethodPatch, path, "application/merge-patch+json", patch, &struct{}{})
	if refused := (*Error)(nil); errors.As(err, &refused) && refused.Code == http.StatusNotFound {
		return nil
	}
	return err
}

// Error is what the API says of a request that it does not do.
type Error struct {
	Code    int    // of HTTP
	Message string // for a person
	Do      string // the request
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %d %s: %s", e.Do, e.Code, http.StatusText(e.Code), e.Message)
	if e.Code == http.StatusForbidden {
		s += "; give the service account a role with that: see deploy/kubernetes/autoscale/nodes.yaml"
	}
	return s
}

// call makes a request. Of pods it asks for the metadata alone, which is a
// fraction of all.
func (a *API) call(ctx context.Context, method, path, content string, body, into any) error {
	var b io.Reader
	if body != nil {
		j, err := json.Marshal(body)
		if err != nil {
			return err
		}
		b = bytes.NewReader(j)
	}
	r, err := http.NewRequestWithContext(ctx, method, a.Base+path, b)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(a.TokenFile)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Accept", "application/json")
	if _, ok := into.(*podList); ok {
		r.Header.Set("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
	}
	if content != "" {
		r.Header.Set("Content-Type", content)
	}
	resp, err := a.Client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return err
	}
	what, _, _ := strings.Cut(path, "?")
	if len(answer) > maxBody {
		return fmt.Errorf("%s %s: an answer of more than %d bytes", method, what, maxBody)
	}
	if resp.StatusCode/100 != 2 {
		e := &Error{Code: resp.StatusCode, Do: method + " " + what}
		var status struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(answer, &status) == nil {
			e.Message = status.Message
		}
		return e
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, what, err)
	}
	return nil
}
