package oracle

import (
	"context"
	"errors"
	"math"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/scale"
	metricsclient "k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

// clock counts virtual time from the start of a scenario.
type clock struct{ start time.Time }

func (c clock) now() time.Duration { return time.Since(c.start) }

// change is a number of replicas that was asked for.
type change struct {
	at time.Duration
	n  int32
}

// target is the scaled object. Its status follows its spec after the delay.
type target struct {
	clock   clock
	delay   time.Duration
	changes []change
	asked   int
	askedAt time.Duration
}

func (t *target) last() change { return t.changes[len(t.changes)-1] }

func (t *target) status() int32 {
	n := t.changes[0].n
	for _, each := range t.changes[1:] {
		if each.at+t.delay <= t.clock.now() {
			n = each.n
		}
	}
	return n
}

func (t *target) Scales(string) scale.ScaleInterface { return t }

func (t *target) Get(context.Context, schema.GroupResource, string, metav1.GetOptions) (*autoscalingv1.Scale, error) {
	t.asked++
	t.askedAt = t.clock.now()
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec:       autoscalingv1.ScaleSpec{Replicas: t.last().n},
		Status:     autoscalingv1.ScaleStatus{Replicas: t.status(), Selector: "app=" + name},
	}, nil
}

func (t *target) Update(_ context.Context, _ schema.GroupResource, to *autoscalingv1.Scale, _ metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	t.changes = append(t.changes, change{t.clock.now(), to.Spec.Replicas})
	return to, nil
}

func (t *target) Patch(context.Context, schema.GroupVersionResource, string, types.PatchType, []byte, metav1.PatchOptions) (*autoscalingv1.Scale, error) {
	return nil, errors.New("the HPA controller does not patch")
}

// metrics answers by the time of the question, since at 0 replicas and outside of min..max none is asked.
type metrics struct {
	clock    clock
	scenario scenario
}

func (m metrics) GetExternalMetric(metric, _ string, _ labels.Selector) ([]int64, time.Time, error) {
	var value *float64
	for _, each := range m.scenario.Metric[metric] {
		if seconds(each.AtS) <= m.clock.now() {
			value = each.Value
		}
	}
	if value == nil {
		return nil, time.Time{}, errors.New("no value")
	}
	return []int64{int64(math.Round(*value * 1000))}, time.Now(), nil
}

var errOther = errors.New("only external metrics")

func (m metrics) GetResourceMetric(context.Context, v1.ResourceName, string, labels.Selector, string) (metricsclient.PodMetricsInfo, time.Time, error) {
	return nil, time.Time{}, errOther
}

func (m metrics) GetRawMetric(string, string, labels.Selector, labels.Selector) (metricsclient.PodMetricsInfo, time.Time, error) {
	return nil, time.Time{}, errOther
}

func (m metrics) GetObjectMetric(string, string, *autoscalingv2.CrossVersionObjectReference, labels.Selector) (int64, time.Time, error) {
	return 0, time.Time{}, errOther
}
